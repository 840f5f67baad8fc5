"""``benchmarks.program`` counts what a step asks of an accelerator; the counts of the published steps do not grow."""

import pytest

from benchmarks import cost, program
from benchmarks.experiments import make_config

HLO = """HloModule jit_step, is_scheduled=true

%fused_sum (param_0: f32[8,4]) -> f32[4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %reduce.1 = f32[4]{0} reduce(%param_0, %zero), dimensions={0}, to_apply=%add
}

%fused_turn (param_0.1: f32[8,4]) -> f32[4,8] {
  %param_0.1 = f32[8,4]{1,0} parameter(0)
  ROOT %transpose.1 = f32[4,8]{1,0} transpose(%param_0.1), dimensions={1,0}
}

%fused_product (param_0.2: bf16[8,4]) -> bf16[8,8] {
  %param_0.2 = bf16[8,4]{1,0} parameter(0)
  ROOT %dot.1 = bf16[8,8]{1,0} dot(%param_0.2, %param_0.2), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

%body (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %image = f32[8,4]{1,0} get-tuple-element(%state), index=1
  %next = (f32[8,4]{1,0}, u8[0]{0}) custom-call(%image, %image), custom_call_target="__cudnn$convBackwardFilter"
  %copy.1 = f32[8,4]{0,1} copy(%image)
  ROOT %both = (s32[], f32[8,4]{1,0}) tuple(%image, %copy.1)
}

ENTRY %main (x: f32[8,4], y: bf16[8,4]) -> (f32[4], f32[4,8]) {
  %x = f32[8,4]{1,0} parameter(0)
  %y = bf16[8,4]{1,0} parameter(1)
  %conv = (f32[8,4]{1,0}, u8[0]{0}) custom-call(%x, %x), custom_call_target="__cudnn$convForward"
  %back = (f32[8,4]{1,0}, u8[0]{0}) custom-call(%x, %x), custom_call_target="__cudnn$convBackwardInput"
  %gemm = (bf16[8,8]{1,0}, s8[4]{0}) custom-call(%y, %y), custom_call_target="__cublas$lt$matmul"
  %triton = bf16[8,8]{1,0} fusion(%y), kind=kCustom, calls=%fused_product
  %loop = (s32[], f32[8,4]{1,0}) while(%x), condition=%more, body=%body
  %turn = f32[4,8]{1,0} fusion(%x), kind=kInput, calls=%fused_turn
  %sum = f32[4]{0} fusion(%x), kind=kInput, calls=%fused_sum, metadata={op_name="a (b)"}
  ROOT %out = (f32[4]{0}, f32[4,8]{1,0}) tuple(%sum, %turn)
}
"""
FOR_TPU = """HloModule jit_step, is_scheduled=true

%inner (param_0: bf16[8,4]) -> f32[8,8] {
  %param_0 = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %convolution.1 = f32[8,8]{1,0:T(8,128)} convolution(%param_0, %param_0), dim_labels=bf_io->bf
}

%outer (param_0.1: bf16[8,4]) -> (f32[8,8], f32[8,8]) {
  %param_0.1 = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %fusion.1 = f32[8,8]{1,0:T(8,128)} fusion(%param_0.1), kind=kOutput, calls=%inner
  ROOT %tuple.1 = (f32[8,8]{1,0:T(8,128)}, f32[8,8]{1,0:T(8,128)}) tuple(%fusion.1, %fusion.1)
}

%turned (param_0.2: bf16[8,4]) -> bf16[4,12] {
  %param_0.2 = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %slice.1 = bf16[4,8]{0,1} transpose(%param_0.2), dimensions={1,0}
  ROOT %pad.1 = bf16[4,12]{1,0:T(4,128)(2,1)} pad(%slice.1, %param_0.2), padding=0_0x2_2
}

ENTRY %main (x: bf16[8,4]) -> bf16[8,4] {
  %x = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %both = (f32[8,8]{1,0:T(8,128)}, f32[8,8]) fusion(%x), calls=%outer, backend_config={"estimated_cycles":"70000"}
  %border = bf16[4,12]{1,0:T(4,128)(2,1)} fusion(%x), calls=%turned, backend_config={"estimated_cycles":"20000"}
  %copy.1 = bf16[8,4]{0,1:T(8,128)S(1)} copy(%x), backend_config={"flag_configs":[],"estimated_cycles":"3000"}
  %sum = f32[] reduce(%x, %zero), dimensions={0,1}, to_apply=%add, backend_config={"estimated_cycles":"500"}
  ROOT %add.1 = bf16[8,4]{1,0:T(8,128)(2,1)} add(%x, %x), backend_config={"estimated_cycles":"6600"}
}
"""
# Of the step at the published widths, 256x256, batch 1.
PUBLISHED = {
    "pix2pix": (29, 14, 18, 24, 36),
    "cyclegan": (202, 26, 106, 0, 112),
}


def test_kernels_are_counted_by_what_they_do():
    """What a loop repeats counts once; bytes are those of the copies and of the sum: 128 + 128 twice, 128 + 16."""
    expected = {
        "kernels": 8,
        "launches": 9,
        "convolutions": 1,
        "input gradients": 1,
        "kernel gradients": 1,
        "products": 2,
        "reductions": 1,
        "copies": 2,
        "elementwise": 0,
    }
    assert program.count_compiled(HLO) == expected | {"MiB": 0}
    larger = HLO.replace("f32[8,4]", f"f32[{2**20},4]").replace("f32[4,8]", f"f32[4,{2**20}]")
    assert program.count_compiled(larger) == expected | {"MiB": 5 * 16}
    longer = "\n".join(f"  %more.{i} = f32[8,4]{{1,0}} add(%x, %x)" for i in range(4))
    held = HLO.replace("  %turn = f32", f"{longer}\n  %turn = f32")  # 6 after the loop, in a command buffer
    assert [program.count_compiled(held)[name] for name in ("kernels", "launches")] == [12, 8]
    cut = larger.replace("%copy.1 = f32[1048576,4]{0,1} copy(", "%copy.1 = f32[1048576,2]{1,0} slice(")
    assert program.count_compiled(cut)["MiB"] == (3 + 1) * 16  # half is read and half written


def test_expected_cycles_of_a_tpu_are_added_by_what_they_are_spent_on():
    """A fusion in a fusion too; 500 cycles are rounded to the even thousand."""
    assert program.count_cycles(FOR_TPU) == {
        "operations": 5,
        "thousand cycles": 100,
        "thousand products": 70,
        "thousand reductions": 0,
        "thousand copies": 23,
        "thousand elementwise": 7,
    }


def passes(config):
    counts = program.count(config)["lowered"]
    return sum(counts.values()) - counts["transposes"]


@pytest.mark.slow
def test_every_pass_of_every_layer_is_one_operation():
    """The identity loss adds none: its images go through the generators together with those to be translated.

    Nor do generated images in a CycleGAN's discriminators: they are judged with the real ones, 14 passes each.
    """
    unet = make_config("pix2pix", 256, 1, width=4)
    assert passes(unet) == len(cost.find_passes(unet)) == 85
    alone, both = (make_config("cyclegan", 64, 1, width=4, identity=identity) for identity in (False, True))
    assert passes(both) == passes(alone) == len(cost.find_passes(alone)) - 2 * 14 == 334


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_steps_ask_for_no_more(name):
    counts = program.count(make_config(name, 256, 1))["lowered"]
    assert list(counts) == ["convolutions", "dilated inputs", "kernel gradients", "products", "transposes"]
    assert all(found <= known for found, known in zip(counts.values(), PUBLISHED[name], strict=True)), counts

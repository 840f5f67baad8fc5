"""Packaging; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

REPOSITORY = "https://github.com/p2p-jax/p2p-jax"


def read_me() -> str:
    """Return the README with links and pictures that lead to the repository: an index of packages has no others."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[([^]]*)\]\((?!https?:)([^)]+)\)", rf"![\1]({REPOSITORY}/raw/main/\2)", text)
    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", rf"]({REPOSITORY}/blob/main/\1)", text)


setup(
    name="p2p_jax",
    version="0.1.0",
    description="Image-to-image translation with conditional GANs (pix2pix, CycleGAN) in JAX and Flax",
    long_description=read_me(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    author="The p2p_jax authors",
    url=REPOSITORY,
    project_urls={
        "Documentation": f"{REPOSITORY}/blob/main/docs/index.md",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
        "Source": REPOSITORY,
    },
    keywords=["pix2pix", "CycleGAN", "CUT", "image-to-image translation", "GAN", "JAX", "Flax"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA :: 12",
        "Environment :: GPU :: NVIDIA CUDA :: 13",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    entry_points={"console_scripts": ["p2p-jax = p2p_jax.__main__:run"]},
    # configs/ stands at the top of the checkout, where users look for it, and is installed as p2p_jax.configs.
    packages=[*find_packages(include=["p2p_jax", "p2p_jax.*"]), "p2p_jax.configs"],
    package_dir={"p2p_jax.configs": "configs"},
    package_data={"": ["*.css", "*.html", "*.js", "*.txt"], "p2p_jax": ["py.typed"]},
    install_requires=[
        "jax>=0.7.2",
        "flax>=0.11.2",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.25",
        "tensorflow-datasets>=4.9.9",
        "importlib_resources>=6.1",  # tensorflow-datasets imports it without asking for it
        "dm-pix>=0.4.4",
        "numpy>=2.0",
        "ml_collections>=1.1.0",
        "absl-py>=2.1",
        "pillow>=10.3",
        "safetensors>=0.5",  # model files; half a megabyte, and needs nothing
        "tqdm>=4.66",
        "flatbuffers>=24",  # jax.export writes with it
    ],
    extras_require={
        "data": [
            "tensorflow-cpu>=2.20; sys_platform != 'darwin'",
            "tensorflow>=2.20; sys_platform == 'darwin'",  # there tensorflow-cpu has no wheel
        ],
        "tb": ["tensorboardX>=2.6.2", "tensorboard>=2.19"],  # writes the curves; shows them, without TensorFlow
        "wandb": ["wandb>=0.22"],
        "mlflow": ["mlflow>=3.4"],
        "trackio": ["trackio>=0.40"],
        "eval": ["scikit-image>=0.24"],  # Lab colours
        # TIFF; 16-bit PNG; HEIC; Lab and Canny
        "images": ["tifffile>=2024.8", "imagecodecs>=2024.9", "pillow-heif>=0.22", "scikit-image>=0.24"],
        "torch": ["torch>=2.6"],  # files of PyTorch, in and out
        "export": ["jax2onnx>=0.17", "onnx>=1.20", "onnxruntime>=1.24"],
        "fid": ["torch-fidelity>=0.4"],  # with PyTorch and torchvision
        "video": ["av>=14"],
        # A page to try a run on; earlier ones name other servers in it. It may want a Pillow that is not the newest.
        "demo": ["gradio>=6.20"],
        # Containers of images. There are wheels for Linux and macOS, and none for Windows.
        "array_record": ["array_record>=0.6; sys_platform != 'win32'"],
        "huggingface": ["datasets>=4.0"],
        "hub": ["huggingface_hub>=1.0"],  # models of others, and one's own
        # No ipykernel: the one that Colab or Jupyter runs must stay as it is.
        "notebooks": ["anywidget>=0.9.13", "ipython", "matplotlib>=3.8", "pandas>=2.2"],
        "docs": ["zensical>=0.0.73", "mkdocstrings[python]>=1.0"],
        "test": [
            "build>=1.2",  # makes the wheel and the source archive, whose contents are looked at, by
            "setuptools>=77",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "scikit-learn>=1.5",
            "selenium>=4.20",  # drives the pages in Chromium, where there is one
            "nbclient>=0.10",  # runs the notebooks, in
            "ipykernel>=6.29",
            "rasterio>=1.4",  # reads what is written of rasters
            "huggingface_hub>=1.0",  # speaks with a hub of the tests' own
            "array_record>=0.6; sys_platform != 'win32'",  # small; datasets, with its 250 MB, is not asked for
        ],
        "dev": ["ruff>=0.12", "mypy>=1.15"],
        "cuda12": ["jax[cuda12]>=0.7.2"],
        "cuda13": ["jax[cuda13]>=0.7.2"],
        "cuda": ["jax[cuda12]>=0.7.2"],  # the older name
        "tpu": ["jax[tpu]>=0.7.2"],
    },
)

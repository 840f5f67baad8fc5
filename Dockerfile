# Training on NVIDIA GPUs (driver of CUDA 13, and the NVIDIA Container Toolkit):
#   docker build -t p2p_jax .
#   docker run --rm --gpus all -v "$PWD:/work" p2p_jax train --config quickstart
FROM python:3.13-slim
COPY . /src
RUN pip install --no-cache-dir '/src[data,tb,images,cuda13]' && rm -rf /src
WORKDIR /work
ENTRYPOINT ["p2p-jax"]
CMD ["--help"]

# iasolve in a container.
#   docker build -t iasolve .                          for the processor
#   docker build -t iasolve --build-arg TORCH=cuda .   for NVIDIA GPUs; run it with --gpus all
#   docker run --rm -v "$PWD:/data" iasolve denoise noisy.png clean.png
# the Python that the tests run with
FROM python:3.11-slim

# cpu: PyTorch's wheels without CUDA, from PyTorch's own index; cuda: those of the package index, several gigabytes
ARG TORCH=cpu

WORKDIR /src
COPY constraints.txt ./
RUN if [ "$TORCH" = cpu ]; then index="--index-url https://download.pytorch.org/whl/cpu"; else index=""; fi \
    && pip install --no-cache-dir $index "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY iasolve iasolve
COPY operators operators
COPY recipes recipes
RUN pip install --no-cache-dir -c constraints.txt '.[cluster,nifti,dicom,nufft]' && rm -rf /src

# results belong to whoever runs the container: docker run --user "$(id -u):$(id -g)"
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /data
ENTRYPOINT ["iasolve"]
CMD ["--help"]

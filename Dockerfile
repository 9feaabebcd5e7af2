# kitslib predict with the networks that come with the package, on a CPU:
#
#   docker build -t kitslib --build-arg TORCH_INDEX=URL .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/scans" kitslib predict scan.nii.gz -o predictions
#
# URL is PyTorch's index of CPU wheels, which its site names under "Start locally". Without it torch is
# found with CUDA alone, several GB, and the build stops.
FROM python:3.11-slim
ARG TORCH_INDEX=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY kitslib kitslib
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch==2.13.0+cpu
RUN pip install --no-cache-dir -c constraints.txt .
ENV HOME=/tmp
USER 1000:1000
WORKDIR /scans
ENTRYPOINT ["kitslib"]

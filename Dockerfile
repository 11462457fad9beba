# The server, and Orthanc as an example of a PACS; compose.yaml starts them. Versions are those of requirements.txt.
# TORCH_BACKEND=cpu takes PyTorch's CPU build; cu130, for example, that for CUDA 13.0.
FROM python:3.11-slim-bookworm AS build
ARG TORCH_BACKEND=cpu
# sam2, which MONAI Label requires, would look for a CUDA compiler.
ENV SAM2_BUILD_CUDA=0
WORKDIR /source
COPY requirements.txt ./
RUN pip install --no-cache-dir "$(grep -m 1 -o '^uv==[^ ;]*' requirements.txt)" && uv venv --no-project /opt/sam3d
COPY . .
RUN uv build --wheel --out-dir /dist . && \
    uv pip install --no-cache --compile-bytecode --python /opt/sam3d --torch-backend "$TORCH_BACKEND" \
        --constraint requirements.txt /dist/*.whl

FROM python:3.11-slim-bookworm AS server
RUN useradd --uid 1000 --home-dir /data --no-create-home sam3d && \
    install --directory --owner sam3d --group sam3d --mode 700 /data && \
    install --directory --owner sam3d --group sam3d /studies
COPY --from=build /opt/sam3d /opt/sam3d
COPY deploy/docker-start.sh /usr/local/bin/sam3d-start
COPY examples/nifti_to_pacs.py sample-data/images/phantom_* /opt/sam3d/samples/
ENV PATH=/opt/sam3d/bin:$PATH HOME=/data XDG_DATA_HOME=/data
USER 1000
WORKDIR /data
# Keys, models, logs and downloads; images and labels.
VOLUME ["/data", "/studies"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=3m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/sam3d/health', timeout=8)"]
CMD ["sam3d-start"]

FROM debian:bookworm-slim AS orthanc
RUN apt-get update && \
    apt-get install --yes --no-install-recommends orthanc=1.10.* orthanc-dicomweb=1.7* && \
    rm -rf /var/lib/apt/lists/* && \
    install --directory --owner orthanc --group orthanc --mode 700 /var/lib/orthanc/storage
COPY deploy/orthanc.json /etc/orthanc-sam3d.json
# The package chooses the number of its user.
# hadolint ignore=DL3066
USER orthanc
VOLUME ["/var/lib/orthanc/storage"]
EXPOSE 8042
CMD ["Orthanc", "/etc/orthanc-sam3d.json"]

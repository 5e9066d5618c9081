# docker build -f docker/server.Dockerfile -t stsmm-server:VERSION .        from the root of the repository
# PIP_ARGS: other package indexes, such as --extra-index-url of PyTorch's CPU wheels, which are gigabytes smaller.
FROM python:3.11-slim

ARG PIP_ARGS=""
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt $PIP_ARGS torch \
 && pip install --no-cache-dir --constraint /src/constraints.txt $PIP_ARGS --editable /src

# The kit is mounted at /kit; compose.yaml in the kit names its owner, who takes this user's place.
USER 1000:1000
ENTRYPOINT ["stsmm"]
CMD ["server", "start", "/kit"]

# An image with the packages of the lock, for pods and containers that mount this repository:
#   docker build --tag registry.example.org/ect:latest .
# Built once by buildah, on a Debian with Python 3.11 in place of the first line's image, and jobs of the
# smoke study ran in it. A GPU needs NVIDIA's container toolkit on the machine.
FROM python:3.11-slim
# git: a run.json names the commit. gcc: recipes with `kernels: native`.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.lock \
 && rm /tmp/requirements.lock

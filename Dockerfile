# syntax=docker/dockerfile:1
FROM python:3.12-slim AS build

WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

# Every wheel of the lock, checked against its hash. Below, pip takes from this folder and from nowhere else, so the
# image gets the locked versions of what the server needs, and none of the development tools.
COPY requirements.lock .
RUN python -m pip download --quiet --require-hashes --only-binary :all: --dest /wheels --requirement requirements.lock

COPY . .
RUN python -m venv /app \
    && /app/bin/pip install --quiet --no-index --find-links /wheels setuptools \
    && /app/bin/pip install --quiet --no-index --find-links /wheels --no-build-isolation '.[server]' \
    && /app/bin/pip uninstall --quiet --yes setuptools pip


FROM python:3.12-slim

RUN groupadd --gid 10001 backhaul \
    && useradd --uid 10001 --gid backhaul --home-dir /data --shell /usr/sbin/nologin backhaul \
    && install --directory --owner backhaul --group backhaul --mode 0700 /data /keys
COPY --from=build /app /app

ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DATA_DIR=/data SIGNING_KEYS=/keys
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/keys"]
EXPOSE 8080

# urlopen raises on anything but a 2xx answer, and on none within 3 s.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8080') + '/readyz', timeout=3)"]

CMD ["backhaul", "serve", "--host", "0.0.0.0"]

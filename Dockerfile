# The server, in two stages: pip installs the packages in the first, the second only copies them.
FROM python:3.13-slim AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements.txt /tmp/
RUN /venv/bin/pip install --quiet -r /tmp/requirements.txt

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A fixed user id, so that volumes keep their owner from one image to the next. /app/var holds what must
# outlive the container (the journal's spool, and the database if it is SQLite): mount a volume there.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app voiceai \
    && install -d -o voiceai -g voiceai -m 750 /app/var
WORKDIR /app
COPY --from=packages /venv /venv
COPY . .
USER voiceai
# Twilio's and Vapi's paths, and the pages.
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# On SIGTERM running calls have DRAIN_SECONDS to end: stop with a timeout of 20 s more.
CMD ["python", "manage.py", "serve", "--host", "0.0.0.0"]

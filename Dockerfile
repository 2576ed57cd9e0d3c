# The server, in two stages: packages are installed where pip is, and run where nothing else is.
FROM python:3.13-slim AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements.txt /tmp/
RUN /venv/bin/pip install --quiet -r /tmp/requirements.txt

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A fixed id, so that volumes keep their owner from one image to the next. What must outlive the container
# (the journal's spool, and the database while it is SQLite) is in /app/var: mount a volume there.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app voiceai \
    && install -d -o voiceai -g voiceai -m 750 /app/var
WORKDIR /app
COPY --from=packages /venv /venv
COPY . .
USER voiceai
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# Messages over 64 KiB are ours to refuse, with a close code of their own, so the server lets them in.
CMD ["daphne", "-b", "0.0.0.0", "-p", "8000", "--websocket-max-message-size", "131072", "voiceai.asgi:application"]

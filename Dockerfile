# The application: web server, worker and sweeper share this image; `train` adds torch.
FROM python:3.12-slim AS app
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY requirements requirements
RUN pip install --require-hashes --no-deps -r requirements/default.lock
RUN useradd --system --uid 10001 --home-dir /data tacit && install -d -o tacit /data
COPY LICENSE README.md manage.py pyproject.toml ./
COPY config config
COPY kb kb
COPY finetune finetune
COPY workers workers
COPY templates templates
COPY docs docs
RUN python -m compileall -q config finetune kb workers
ENV DATA_DIR=/data
VOLUME /data
USER tacit
EXPOSE 8000
CMD ["uvicorn", "config.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]

# For the GPU machine. torch from the index brings CUDA; it is the one package that no lock holds.
FROM app AS train
USER root
RUN pip install torch==2.13.0 && pip install --require-hashes --no-deps -r requirements/train.lock -r requirements/qlora.lock
USER tacit
CMD ["python", "manage.py", "trainer"]

# text-generation-inference under its supervisor, which changes the adapters live. It has a Python of
# its own, because TGI's packages are pinned, and runs as root, because TGI's own Python lies in /root.
FROM ghcr.io/huggingface/text-generation-inference:3.3.7 AS tgi
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
ENV PYTHONUNBUFFERED=1
WORKDIR /app
COPY requirements/supervisor.lock requirements/supervisor.lock
RUN UV_PYTHON_INSTALL_DIR=/opt/python uv venv --managed-python --python 3.12 /opt/supervisor && uv pip install --no-cache --python /opt/supervisor --require-hashes --no-deps -r requirements/supervisor.lock
COPY finetune/__init__.py finetune/chat_templates.py finetune/hyperparameters.py finetune/loading.py finetune/probe.py finetune/
COPY workers/__init__.py workers/processes.py workers/tgi_supervisor.py workers/
ENTRYPOINT ["/opt/supervisor/bin/python", "-m", "workers.tgi_supervisor", "--launcher", "/tgi-entrypoint.sh"]
CMD ["/data/tgi", "--host", "0.0.0.0", "--port", "80"]

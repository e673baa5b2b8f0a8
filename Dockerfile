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
RUN pip install torch==2.13.0 && pip install --require-hashes --no-deps -r requirements/train.lock
USER tacit
CMD ["python", "manage.py", "trainer"]

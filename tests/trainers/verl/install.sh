# verl itself asks for tools that only its launcher uses (wandb, tensorboard); its rollout worker runs without them.
# TRL's wheel brings the chat templates that the tests use.
install -c "$PINS" 'transformers>=5.5.3,<5.11' 'tensordict>=0.8,<=0.10' ray hydra-core omegaconf datasets accelerate \
  torchdata codetiming dill pybind11 pylatexenc orjson cachetools fastapi uvicorn opentelemetry-api opentelemetry-sdk \
  jinja2 pytest pytest-asyncio hypothesis
install -c "$PINS" --no-deps verl trl
install -c "$PINS" -e '.[table,image,data]'

# TRL's wheel brings the chat templates that the tests use.
# These trainers ask for engines that only their launchers use; what plays environments runs without them.
install -c "$PINS" skyrl-gym verifiers transformers accelerate datasets modelscope json_repair dacite pylatexenc fastapi \
  uvicorn websockets fastmcp jinja2 pytest pytest-asyncio hypothesis
install -c "$PINS" --no-deps ms-swift peft openrlhf openenv-core trl
install -c "$PINS" -e '.[table,image,data]'

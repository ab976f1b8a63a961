install -c "$PINS" trl transformers datasets accelerate jinja2 pytest pytest-asyncio hypothesis
install -c "$PINS" -e '.[table,image,data]'

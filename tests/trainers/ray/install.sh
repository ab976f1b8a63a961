# AReaL asks for builds of torch for GPUs and for its launchers' tools, and NeMo-Gym for Python 3.13.14, though both run
# without: the pins are what was run, taken as they are.
install --no-deps --ignore-requires-python -r "$PINS"
install --no-deps -e .

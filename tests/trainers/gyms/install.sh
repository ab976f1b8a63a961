# These packages disagree about versions that none of the tested parts cares for (verifiers and fastmcp about mcp, ms-swift
# about transformers), and OpenRLHF and ms-swift ask for CUDA builds: the pins are what was run, taken as they are.
install --no-deps -r "$PINS"
install --no-deps -e .

"""Environments inside other people's trainers. Each module imports its trainer lazily, when it is used.

from agentenv.trainers.trl import TRLSpec

spec = TRLSpec("table", tasks=200, difficulty=2)
"""

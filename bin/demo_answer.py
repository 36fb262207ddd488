"""The program that the demo's worker executes: it reads the prompt and answers with a greeting."""

import sys

prompt = sys.stdin.read()
lines = [line for line in prompt.splitlines() if line.strip()]
print(f"Hello from your worker! I was given {len(prompt.split())} words: “{lines[0][:100]}”")

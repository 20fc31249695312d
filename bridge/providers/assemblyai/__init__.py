"""AssemblyAI: streaming speech recognition."""

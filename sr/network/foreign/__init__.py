"""Networks that somebody else trained: ONNX files without our metadata are read, probed and described.

`graph` reads a file without running it, `checks` refuses what must not run, `probe` finds conventions by
small runs, `halo` measures how far tiles must overlap, `child` does both in a process of its own, `describe`
caches the answers.
"""

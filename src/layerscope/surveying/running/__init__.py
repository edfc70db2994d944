"""Who measures which images, and what becomes of the results.

A `job` is cut into chunks of images. A `worker` turns chunks into partial results, wherever it runs: an engine, one of
`run.ENGINES`, decides where, and differs from another in nothing but how chunks and results travel (`pool`,
`ray_actors`). `run` merges what arrives, in any order, and `resume` keeps it on disk.
"""

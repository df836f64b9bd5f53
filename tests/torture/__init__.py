"""The torture: attacks on what the project promises, through its commands and files alone.

`python -m tests.torture` (or `make torture`) kills commands, damages files, fills disks, and judges what comes of it.
Nothing of the packages is imported by its inner name: the console commands and docs/format.md are all that is known,
so that what is tested is what people meet. Each trial follows from the seed and its number, and can be done alone:
`python -m tests.torture --trial damage:17`.
"""

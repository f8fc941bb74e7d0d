"""A CUDA device that is pretended: code that asks for ``cuda:0`` runs on a torch without CUDA.

Import nothing from here before ``guard.load``; the README beside this folder says what it shows.
"""

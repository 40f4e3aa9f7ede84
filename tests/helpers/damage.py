"""Readers that end, block or fill their process: what a damaged file makes of a library written in C."""

import ctypes
import os
import time
from pathlib import Path

import numpy as np


def crash(path):
    ctypes.string_at(0)


def process_number(path):
    return os.getpid()


def block(path):
    while True:
        pass


def wait(path):
    time.sleep(1000)


def fill(path):
    return np.ones(2**29).sum()  # 4 GB


def fail(path):
    raise ZeroDivisionError(path.name)


def own_file(path):
    return Path(path).read_bytes()


def error_stream(path):
    return os.readlink("/proc/self/fd/2")

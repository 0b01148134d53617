"""The measurements. Each takes running programs and returns numbers; none prints or judges.

Times by the clock are only worth something on a machine that does nothing else; CPU times are worth something anyway.
"""

import json
import statistics
import subprocess
import sys
import time

from .machine import OTHER_CORE
from .programs import RELEASE, SCRATCH, Gateway, many_tenants


def arguments(program, request, options):
    line, headers, body = request
    file = SCRATCH / f"body-{program.port}-{len(body)}.json"
    if not file.exists() or file.read_bytes() != body:
        file.write_bytes(body)
    command = [RELEASE / "load", "--to", f"127.0.0.1:{program.port}", "--line", line, "--body", file]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    for name, value in options.items():
        command += [f"--{name}", value]
    return ["taskset", "-c", OTHER_CORE, *map(str, command)]


def load(program, request, **options):
    """One run of the load generator, with the CPU time that the program took for it."""
    before = program.cpu_s()
    done = subprocess.run(arguments(program, request, options), capture_output=True, text=True, timeout=600)
    cpu = program.cpu_s() - before
    if done.returncode != 0:
        sys.exit(f"the load generator failed: {done.stderr}")
    told = json.loads(done.stdout)
    if told["wrong"] or told["broken"] or told["answered"] != told["sent"]:
        sys.exit(f"{program.name}: not every request was answered well: {told}")
    return {**told, "cpu_us": cpu * 1e6 / max(1, told["sent"])}


def check(program):
    """Whether a program translates rightly: of five contacts the last is not there."""
    line, headers, body = program.request(5)
    at = body.rindex(b"0000")
    request = line, headers, body[:at] + b"dead" + body[at + 4:]
    command = arguments(program, request, {})
    done = subprocess.run([*command, "--show"], capture_output=True, text=True, timeout=60)
    try:
        return program.is_right(done.stdout)
    except (ValueError, KeyError):
        return False


def work(programs, sizes, rounds, seconds):
    """CPU time a request, program by program in turns, and requests a second."""
    for program in programs:
        load(program, program.request(1), connections=32, seconds=max(1.0, seconds / 2))
    figures = {program.name: {size: [] for size in sizes} for program in programs}
    for size in sizes:
        for _ in range(rounds):
            for program in programs:
                connections = 32 if size < 10_000 else 8
                told = load(program, program.request(size), connections=connections, seconds=seconds)
                figures[program.name][size].append(told)
    return figures


def latency(programs, mock, rate, rounds, seconds):
    """Times at a fixed rate, and those of the mock alone."""
    mock.name = "mock"
    figures = {program.name: [] for program in [mock, *programs]}
    for _ in range(rounds):
        for program in [mock, *programs]:
            told = load(program, program.request(1), connections=64, seconds=seconds, rate=rate)
            figures[program.name].append(told)
    return figures


def one_by_one(programs, count, times):
    """Milliseconds for so many contacts, each its own call at an upstream that takes its time."""
    figures = {}
    for program in programs:
        request = program.slow_request(count)
        load(program, request, count=1)
        figures[program.name] = [load(program, request, count=1)["p50"] / 1e3 for _ in range(times)]
    return figures


def durable(mock, rounds, seconds):
    """Requests a second of 64 callers with one contact each, on SQLite and on nothing, in turns."""
    figures = {"memory:": [], "sqlite:ledger.db": []}
    for _ in range(rounds):
        for store, list_ in figures.items():
            with Gateway(mock, store) as gateway:
                load(gateway, gateway.request(1), connections=64, seconds=0.5)
                told = load(gateway, gateway.request(1), connections=64, seconds=seconds)
                list_.append({**told, "rate": told["answered"] / told["seconds"]})
    return figures


def idle(mock):
    """Memory after one request, and with 1,000 connections that asked once."""
    with Gateway(mock, "sqlite:ledger.db") as gateway:
        fresh = gateway.memory_mib()
        load(gateway, gateway.request(1), count=1)
        warm = gateway.memory_mib()
        command = arguments(gateway, gateway.request(1), {"connections": 1000, "count": 1000})
        with subprocess.Popen([*command, "--hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            told = json.loads(holder.stdout.readline())
            time.sleep(0.5)
            held = gateway.memory_mib()
            holder.stdin.close()
        return {"fresh_mib": fresh, "warm_mib": warm, "held_mib": held, "held": told["answered"] - told["wrong"]}


def tenants(mock, count):
    """How long a start takes with so many tenants of five connections, and what they take of memory."""
    with Gateway(mock) as gateway:
        alone = gateway.memory_mib()
    files = many_tenants(count)
    with Gateway(mock, tenants=files) as gateway:
        seconds = time.monotonic() - gateway.began
        cpu, memory = gateway.cpu_s(), gateway.memory_mib()
        peak = gateway.memory_mib("VmHWM")
        if not check(gateway):
            sys.exit("with many tenants, the gateway does not answer rightly")
    each = (memory - alone) * 1024 / (5 * count)
    return {"seconds": seconds, "cpu_s": cpu, "memory_mib": memory, "peak_mib": peak, "kib_a_connection": each}


def median(list_, key):
    return statistics.median(entry[key] for entry in list_)



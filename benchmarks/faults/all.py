"""Every campaign, one after the other, and a table of what they found.

    python benchmarks/faults/all.py [--quick] [--disk DIR]

The whole takes about an hour of two cores, --quick some ten minutes. DIR is the small
file system that disk.py fills; without it that campaign is left out.
"""

import argparse
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
# Script -> its arguments, and those of --quick.
CAMPAIGNS = {
    "../kill_resume.py": (["--chains", "10"], ["--chains", "1"]),
    "bits.py": (["--flips", "166"], ["--flips", "5"]),
    "signals.py": ([], ["--signals", "SIGTERM"]),
    "processes.py": ([], ["--only", "counts,setting"]),
    "not_finite.py": (["--steps", "50"], ["--steps", "6"]),
    "disk.py": (["--points", "20"], ["--points", "2"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--disk", default="")
    options = parser.parse_args()
    rows = []
    for script, (whole, quick) in CAMPAIGNS.items():
        arguments = quick if options.quick else whole
        if script == "disk.py":
            if not options.disk:
                continue
            arguments = [*arguments, "--disk", options.disk]
        print(f"## {script} {' '.join(arguments)}", flush=True)
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, HERE / script, *arguments])
        seconds = time.perf_counter() - begun
        kept = "kept" if done.returncode == 0 else "NOT KEPT"
        rows.append((pathlib.Path(script).name, " ".join(arguments), kept, seconds))
    print("| campaign | with | promises | seconds |\n|---|---|---|---|")
    for name, arguments, kept, seconds in rows:
        print(f"| {name} | {arguments} | {kept} | {seconds:.0f} |")
    if any(kept != "kept" for *_, kept, _ in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

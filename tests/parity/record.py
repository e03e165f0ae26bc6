"""Writes the torch peers' numbers to tests/golden: `python -m tests.parity.record`.

Every file but sizes.json has a peer's numbers by case, see `golden.digest`, with the
case itself; sizes.json has the parameters that peers count in networks of full size.
"""

from tests.parity import golden, peers
from tests.parity.cases import CASES, FULL_SIZE, NOT_RECORDED


def main() -> None:
    files: dict[str, dict] = {}
    for name, case in CASES.items():
        if name not in NOT_RECORDED:
            numbers = golden.digest(peers.run(case)).items()
            files.setdefault(case.peer, {})[name] = {
                "recorded from": peers.label(case.peer),
                "case": case._asdict(),
                **{what: [float(f"{x:.8g}") for x in xs] for what, xs in numbers},
            }
    for peer, entries in files.items():
        golden.write(peer, entries)
    sizes = {
        name: {
            "counted by": peers.label(case.peer),
            "parameters": sum(x.numel() for x in peers.build(case).parameters()),
        }
        for name, case in FULL_SIZE.items()
    }
    golden.write("sizes", sizes)


if __name__ == "__main__":
    main()

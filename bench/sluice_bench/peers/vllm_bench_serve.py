"""`vllm bench serve` as vLLM has it, run by the interpreter of vLLM's own environment.

The CPU build's console script looks for a distribution of another name and fails; this calls the same parser
and the same function. Imports nothing of ours.
"""

from __future__ import annotations


def main() -> None:
    """Take the command's own arguments."""
    from vllm.benchmarks.serve import add_cli_args  # type: ignore[import-not-found]
    from vllm.benchmarks.serve import main as serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    serve(parser.parse_args())


if __name__ == "__main__":
    main()

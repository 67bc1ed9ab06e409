"""Answers a file of prompts with the newest model: JSON lines or Parquet in, JSON lines out, row for row.

python jobs/generate.py recipes/demo.yaml prompts.jsonl --out answers.jsonl
python jobs/generate.py recipes/demo.yaml prompts.parquet --out answers.jsonl generate.temperature=0.7

A row has `prompt` (text) or `messages` (as OpenAI's), and keeps what else it holds. Killed, the same command goes on.
"""

from __future__ import annotations

from job import chatter_to_log, guarded, parser, placed, ray_started


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--out", required=True, metavar="FILE", help="a new .jsonl file")
    options = arguments.parse_intermixed_args()

    def work() -> None:
        from serving.app import newest_model

        from webtochat import recipe as recipes
        from webtochat.errors import UserError
        from webtochat.inference.stage import Job, generate
        from webtochat.run import Screen

        prompts = [each for each in options.overrides if "=" not in each]
        overrides = [each for each in options.overrides if "=" in each]
        if len(prompts) != 1:
            raise UserError("which prompts? jobs/generate.py RECIPE prompts.jsonl --out answers.jsonl")
        chosen = placed(recipes.load(options.recipe, overrides), overrides)
        job = Job(chosen, newest_model(chosen), prompts[0], options.out)
        told = job.done()
        if told is None:
            with chatter_to_log(chosen, True) as screen, ray_started(chosen):
                told = generate(job, Screen(screen))
        print(f"generate: {told}  [{options.out}]")

    guarded(work)


if __name__ == "__main__":
    main()

"""API keys of the server: makes one, shows it once, and keeps its hash under serve.keys of the recipe.

python jobs/keys.py recipes/demo.yaml serve.keys=keys.jsonl --name ann --requests-per-minute 60
python jobs/keys.py recipes/demo.yaml serve.keys=keys.jsonl --revoke ann
python jobs/keys.py recipes/demo.yaml serve.keys=keys.jsonl        (who has one)
"""

from __future__ import annotations

from job import guarded, parser, placed


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--name", help="make a key for this person or program")
    arguments.add_argument("--requests-per-minute", type=int, metavar="N", help="by default as many as they like")
    arguments.add_argument("--tokens-per-minute", type=int, metavar="N", help="of prompts and answers together")
    arguments.add_argument("--revoke", metavar="NAME", help="let nobody in with it any more")
    options = arguments.parse_intermixed_args()

    def work() -> None:
        from serving import keys

        from webtochat import recipe as recipes
        from webtochat.errors import UserError

        where = placed(recipes.load(options.recipe, options.overrides), options.overrides).serve.keys
        if where is None:
            raise UserError("where are the keys? set serve.keys to a file, in the recipe or on this line")
        held = keys.read(where)
        if not (options.name or options.revoke):
            for key in held:
                print(key.model_dump_json(exclude={"sha256"}))
            return
        if where.startswith(keys.VARIABLE):
            raise UserError(f"serve.keys={where} cannot be written from here: name a file, and set the variable to it")
        if options.revoke:
            if options.revoke not in {key.name for key in held}:
                raise UserError(f"no key of the name {options.revoke} in {where}")
            keys.write(where, [key for key in held if key.name != options.revoke])
            print(f"revoked: {options.revoke}")
            return
        if options.name in {key.name for key in held}:
            raise UserError(f"{where} has a key of the name {options.name} already: --revoke it, or choose another")
        for name in ("requests_per_minute", "tokens_per_minute"):
            if (getattr(options, name) or 1) < 1:
                raise UserError(f"--{name.replace('_', '-')} is at least 1")
        text, key = keys.made(options.name, options.requests_per_minute, options.tokens_per_minute)
        keys.write(where, [*held, key])
        print(text)

    guarded(work)


if __name__ == "__main__":
    main()

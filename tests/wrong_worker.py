"""An engine whose texts are wrong from the second token on, and that accepts every draft."""

from serving_worker import start

from eval.serving.job import Decoded, Job, answer


def wrong(job: Job) -> tuple:
    version, decode = start(job)

    def changed(prompt: list[int]) -> Decoded:
        tokens, drafted, _ = decode(prompt)
        return [tokens[0], *((token + 7) % 64 + 8 for token in tokens[1:])], 9 * drafted, 9 * drafted

    return version, changed


if __name__ == "__main__":
    answer(wrong)

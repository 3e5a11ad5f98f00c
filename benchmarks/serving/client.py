"""Run by a Python that has OpenAI's client and no coat: questions to a server, one after the other.

    python client.py URL NEW_TOKENS < questions.json

Questions: [{"wav": base64, "prompt": text}]; prints {"answers": [{"prompt", "tokens", "cached"}]}.
"""

import json
import sys

from openai import OpenAI  # pyright: ignore[reportMissingImports] - in the environment of vLLM


def main(url: str, new_tokens: int) -> None:
    client = OpenAI(base_url=url, api_key="none")
    found = []
    for question in json.load(sys.stdin):
        audio = {"data": question["wav"], "format": "wav"}
        content = [{"type": "input_audio", "input_audio": audio}, {"type": "text", "text": question["prompt"]}]
        answer = client.chat.completions.create(
            model="coat",
            messages=[{"role": "user", "content": content}],
            temperature=0,
            max_tokens=new_tokens,
            extra_body={"return_token_ids": True},
        ).model_dump()
        details = answer["usage"].get("prompt_tokens_details") or {}
        found.append(
            {
                "prompt": answer["prompt_token_ids"],
                "tokens": answer["choices"][0]["token_ids"],
                "cached": details.get("cached_tokens") or 0,
            }
        )
    print("FOUND", json.dumps({"answers": found}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

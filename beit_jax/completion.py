"""Completes commands, flags and recipes: `python -m beit_jax.completion SHELL`.

    eval "$(beit completion bash)"  # in ~/.bashrc
    eval "$(beit completion zsh)"  # in ~/.zshrc

All else is completed as a path.
"""

import sys

from beit_jax import manual, shipped

# zsh reads the functions of bash.
ZSH = (
    "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
)
BASH = """\
_beit() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" last="${{COMP_WORDS[COMP_CWORD-1]}}"
  [[ $word == "=" ]] && word=""
  [[ $last == "=" ]] && last="${{COMP_WORDS[COMP_CWORD-2]}}"
  local words=""
  if [[ $COMP_CWORD == 1 ]]; then
    words="{commands} --help --version"
  elif [[ $last == "--config" || $last == "recipes" ]]; then
    words="{recipes}"
  elif [[ $word == -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{flags}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _beit beit
"""


def script() -> str:
    """What bash is to read."""
    flags = [
        f'      {name}) words="{" ".join(manual.flag_names(name))} --help" ;;'
        for name in manual.COMMANDS
    ]
    return BASH.format(
        commands=" ".join(manual.COMMANDS),
        recipes=" ".join(shipped.names()),
        flags="\n".join(flags),
    )


def main(words: list[str]) -> None:
    shells = {"bash": script(), "zsh": ZSH + script()}
    if manual.asked(words):
        print(manual.page("completion"))
    elif len(words) != 1 or words[0] not in shells:
        manual.refuse(f"it takes SHELL, one of {', '.join(shells)}, not {words}")
    else:
        print(shells[words[0]], end="")


if __name__ == "__main__":
    main(sys.argv[1:])

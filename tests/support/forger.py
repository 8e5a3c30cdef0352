"""A child that is nothing but lies: it answers each message with the next of the replies that it was started with.

A reply is a word in hexadecimal: bytes to send, or `!` and Python to run.
"""

import sys


def main() -> None:
    for reply in map(bytes.fromhex, sys.argv[1:]):
        sys.stdin.buffer.readline()
        if reply.startswith(b"!"):
            exec(reply[1:], {})
        else:
            sys.stdout.buffer.write(reply)
            sys.stdout.buffer.flush()
    sys.stdin.buffer.readline()


if __name__ == "__main__":
    main()

"""Requests a page repeatedly over one connection and prints the delay of each response in seconds."""

import socket
import sys
import time


def main() -> None:
    port, visits, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        page = connection.makefile("rwb", buffering=0)
        started = time.perf_counter()
        for visit in range(visits):
            due = started + visit * pause
            time.sleep(max(0.0, due - time.perf_counter()))
            page.write(b"visit\n")
            page.readline()
            print(time.perf_counter() - due)


if __name__ == "__main__":
    main()

"""An embedded MQTT broker, for the demo alone: `python -m edged.tools.demo.broker PORT`.

amqtt speaks MQTT 3.1.1 only and forgets what it has not delivered; production wants mosquitto. It
runs in a process of its own so that its interpreter does not slow the daemon's.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from edged.core.errors import MissingDependency

try:
    from amqtt.broker import Broker
except ImportError as error:
    raise MissingDependency("amqtt", "demo", "The demo's MQTT broker") from error


async def serve(port: int) -> None:
    """Serve on loopback until SIGTERM.

    A Ctrl-C reaches every process of the terminal: the daemon still has to deliver then.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )
    await broker.start()
    print("ready", flush=True)
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(serve(int(sys.argv[1])))

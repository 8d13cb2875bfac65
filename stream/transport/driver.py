"""The transport that Faust finds under the URL scheme `batch://` (entry point `faust.transports`)."""

from faust.transport.drivers import aiokafka as driver

from stream.transport.consumer import Consumer as RunConsumer


class Transport(driver.Transport):  # type: ignore[misc]  # faust is untyped here
    """aiokafka, with runs of records for the topics whose schema is a `RunSchema`."""

    Consumer = RunConsumer

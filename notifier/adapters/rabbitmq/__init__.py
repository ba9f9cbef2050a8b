"""RabbitMQ as the event queue, by AMQP 0-9-1."""

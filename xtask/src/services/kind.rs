//! The two servers that amends needs.

use super::docker::{self, Container};
use super::place::Place;
use super::port;
use super::postgres::Postgres;
use super::rabbitmq::RabbitMq;
use super::server::Server;

/// A server that amends needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keeps the sagas and the outbox.
    Postgres,
    /// Carries the messages of the outbox.
    RabbitMq,
}

impl Kind {
    /// Both of them.
    pub(crate) const ALL: [Self; 2] = [Self::Postgres, Self::RabbitMq];

    /// What its makers call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::RabbitMq => "RabbitMQ",
        }
    }

    /// The environment variable that holds its URL.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "DATABASE_URL",
            Self::RabbitMq => "AMQP_URL",
        }
    }

    /// The port of a URL without one.
    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::RabbitMq => 5672,
        }
    }

    /// The Debian package that it is in.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::RabbitMq => "rabbitmq-server",
        }
    }

    /// The private server, run by what is installed on the machine.
    pub(crate) fn installed(self) -> Option<Box<dyn Server>> {
        match self {
            Self::Postgres => Some(Box::new(Postgres::find()?)),
            Self::RabbitMq => Some(Box::new(RabbitMq::find()?)),
        }
    }

    /// The private server, run by Docker.
    pub(crate) fn in_docker(self) -> Option<Box<dyn Server>> {
        docker::is_possible().then(|| -> Box<dyn Server> { Box::new(self.container()) })
    }

    fn container(self) -> Container {
        match self {
            Self::Postgres => Container {
                image: "postgres:15",
                ports: port::POSTGRES,
                inner_port: 5432,
                settings: &["POSTGRES_USER=developer", "POSTGRES_PASSWORD=amends"],
                url: ["postgres://developer:amends@127.0.0.1:", "/developer"],
                // By TCP: while the image sets itself up, it listens on a socket only.
                ready: &["pg_isready", "--host", "127.0.0.1", "--username", "developer"],
                place: Place::of("postgres", "postgres"),
            },
            Self::RabbitMq => Container {
                image: "rabbitmq:3.13",
                ports: port::RABBITMQ,
                inner_port: 5672,
                settings: &["RABBITMQ_NODENAME=amends@localhost"],
                url: ["amqp://guest:guest@127.0.0.1:", "/%2f"],
                ready: &["rabbitmq-diagnostics", "--quiet", "check_port_connectivity"],
                place: Place::of("rabbitmq", "rabbitmq"),
            },
        }
    }
}

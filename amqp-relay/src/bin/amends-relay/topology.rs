//! Looks at the exchanges, queues and bindings of the settings, or declares them.

use amends_relay::{Broker, RelayError, Topology, TopologyMode};

use crate::settings::Settings;

/// One line a thing: how it stands, and what helps where it is not as it should be.
pub(crate) async fn report(settings: &Settings, declare: bool) -> Result<(), String> {
    let mode = if declare { TopologyMode::Declare } else { TopologyMode::Verify };
    let outcomes =
        settings.whole_topology(mode).report(&settings.broker()?).await.map_err(|error| error.to_string())?;
    let mut wrong = 0;
    for outcome in &outcomes {
        match &outcome.result {
            Ok(checked) => println!("ok     {}: {checked}", outcome.item),
            Err(error) => {
                wrong += 1;
                println!("WRONG  {error}");
            }
        }
    }
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} of {} are not as the settings say", outcomes.len())) }
}

/// At the start a wrong topology is a mistake of the settings; a broker that is away is none, and waited for.
pub(crate) async fn must_be_there(topology: &Topology, broker: &Broker) -> Result<(), String> {
    match topology.ensure(broker).await {
        Err(error @ RelayError::Topology { .. }) => Err(error.to_string()),
        Err(error) => {
            tracing::warn!(%error, "the topology cannot be looked at now; trying again with the first connection");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

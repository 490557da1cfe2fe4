use amends::{Call, Schedule, StepResult, Tick, saga};

struct Report;

#[saga(name = "report", version = 1, input = Tick, cron = "0 3 * * *")]
impl Report {
    #[step(call, compensate = none)]
    async fn send(&self, _call: &Call, input: &Tick) -> StepResult<Tick> {
        Ok(*input)
    }
}

#[test]
fn a_saga_on_a_schedule() {
    assert_eq!(Report::DEFINITION.schedule, Some(Schedule::Cron("0 3 * * *".into())));
}

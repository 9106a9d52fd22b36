//! Many calls by many tasks: how long all of them take.

use std::time::Instant;

use crate::Outcome;

/// The time of a call in seconds, when `tasks` tasks make `calls` of them together, one after the other
/// each.
pub(crate) async fn of_tasks<T, F>(
    tasks: u32,
    calls: u32,
    caller: impl Fn() -> T,
    call: F,
) -> Outcome<f64>
where
    T: Send + 'static,
    F: AsyncFn(&mut T) -> Outcome<()> + Clone + 'static,
{
    let each = (calls / tasks).max(1);
    let local = tokio::task::LocalSet::new();
    let start = Instant::now();
    local
        .run_until(async {
            let run = || {
                let (mut caller, call) = (caller(), call.clone());
                tokio::task::spawn_local(async move {
                    for _ in 0..each {
                        call(&mut caller).await.map_err(|error| error.to_string())?;
                    }
                    Ok::<_, String>(())
                })
            };
            let all: Vec<_> = (0..tasks).map(|_| run()).collect();
            for one in all {
                one.await??;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })
        .await?;
    Ok(start.elapsed().as_secs_f64() / f64::from(each * tasks))
}

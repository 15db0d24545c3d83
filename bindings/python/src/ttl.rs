//! Times to live between Python and the core: seconds as a number, or a `timedelta`.

use crate::argument::Version;
use crate::error::{invalid, to_py, wrong_type};
use llmspell_state_persistence::{SetOptions, Ttl};
use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyFloat, PyInt};

/// The argument `ttl`; infinity is for ever.
pub(crate) struct ToLive(Ttl);

impl FromPyObject<'_, '_> for ToLive {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let seconds = match seconds_of(&object)? {
            Some(seconds) => seconds,
            None if is_number(&object) => {
                object.extract().map_err(|_| invalid("ttl is longer than a float can tell"))?
            }
            None => return Err(wrong_type("ttl", "a number of seconds or a timedelta", &object)),
        };
        Ttl::seconds(seconds).map(Self).map_err(to_py)
    }
}

fn is_number(object: &Bound<'_, PyAny>) -> bool {
    let is_whole = object.is_instance_of::<PyInt>() && !object.is_instance_of::<PyBool>();
    is_whole || object.is_instance_of::<PyFloat>()
}

/// The seconds of a `timedelta`; of another object, nothing.
pub(crate) fn seconds_of(object: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if !object.is_instance_of::<PyDelta>() {
        return Ok(None);
    }
    object.call_method0(intern!(object.py(), "total_seconds"))?.extract().map(Some)
}

/// What was told; nothing is as the scope says.
pub(crate) fn told(ttl: Option<ToLive>) -> Ttl {
    ttl.map_or(Ttl::Default, |ttl| ttl.0)
}

/// What a set was told beside key and value.
pub(crate) fn options(ttl: Option<ToLive>, if_version: Option<Version>) -> SetOptions {
    SetOptions { ttl: told(ttl), if_version: if_version.map(|version| version.0) }
}

/// Seconds, or `None` for ever.
pub(crate) fn seconds(py: Python<'_>, ttl: Ttl) -> PyResult<Bound<'_, PyAny>> {
    match ttl {
        Ttl::After(time) => time.as_secs_f64().into_bound_py_any(py),
        Ttl::Default | Ttl::Never => Ok(py.None().into_bound(py)),
    }
}

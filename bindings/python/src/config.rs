//! Settings between keyword arguments and the core's [`StateConfig`]: a cold path, so `pythonize` does it.

use crate::error::{invalid, to_py, wrong_type};
use crate::retention;
use llmspell_state_persistence::StateConfig;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The setting that names the file.
const PATH: &str = "persistence_path";

/// The setting that is a class of its own.
const RETENTION: &str = "retention";

/// The settings by name, and the file's path where it is given on its own.
pub(crate) fn from_py(path: Option<&Bound<'_, PyAny>>, options: &Bound<'_, PyDict>) -> PyResult<StateConfig> {
    let options = options.copy()?;
    // Taken out: these objects are more than a setting read as JSON could hold.
    let named = take(&options, PATH)?;
    let retention = take(&options, RETENTION)?;
    let mut options: Map<String, Value> =
        pythonize::depythonize(&options).map_err(|e| invalid(format!("settings: {e}")))?;
    if let Some(policy) = retention {
        options.insert(RETENTION.into(), retention::parts(&policy)?.into());
    }
    let mut config = StateConfig::from_options(options).map_err(to_py)?;
    config.persistence_path = match (path, &named) {
        (Some(_), Some(_)) => {
            return Err(invalid("path and persistence_path are two names of one setting; give one of them"));
        }
        (Some(path), None) | (None, Some(path)) => Some(path_of(path)?),
        (None, None) => None,
    };
    Ok(config)
}

/// Takes a setting out, if it is there and not `None`.
fn take<'py>(options: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let found = options.get_item(name)?;
    if found.is_some() {
        options.del_item(name)?;
    }
    Ok(found.filter(|found| !found.is_none()))
}

/// A path keeps bytes that are not UTF-8, which a setting read as JSON could not.
fn path_of(path: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    path.extract().map_err(|error: PyErr| {
        let refused = error.is_instance_of::<PyTypeError>(path.py());
        if refused {
            wrong_type("path", "a str or an os.PathLike[str]", path)
        } else {
            invalid(format!("path is not a file name: {error}"))
        }
    })
}

/// The settings as a new `dict`.
pub(crate) fn to_py_dict<'py>(py: Python<'py>, config: &StateConfig) -> PyResult<Bound<'py, PyAny>> {
    Ok(pythonize::pythonize(py, config)?)
}

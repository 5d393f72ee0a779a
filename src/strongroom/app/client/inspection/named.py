"""Names that the rules know: modules, functions and attributes, each with the rule that it breaks."""

from __future__ import annotations

from typing import Final


def _all(rule: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), rule)


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


MODULES: Final[dict[str, str]] = {
    **_all(
        "network",
        "socket ssl http urllib urllib3 requests httpx httpcore aiohttp websockets websocket ftplib smtplib poplib imaplib"
        " telnetlib nntplib xmlrpc socketserver asyncio asyncore select selectors paramiko boto3"
        " botocore grpc zmq pika redis"
        " s3fs gcsfs fsspec smbclient webbrowser wsgiref pyarrow.flight pyarrow.fs tornado twisted uvicorn starlette flask",
    ),
    **_all("process", "subprocess pty pexpect sh plumbum psutil signal atexit sched cmd"),
    **_all("threads", "threading multiprocessing concurrent queue _thread ray dask joblib.parallel"),
    **_all(
        "reflection",
        "importlib imp runpy code codeop builtins inspect gc types dis opcode ast symtable pkgutil zipimport sysconfig site"
        " weakref traceback faulthandler pdb bdb trace",
    ),
    **_all("files.write", "shutil tempfile zipfile tarfile sqlite3 dbm h5py tables"),
    **_all("files.read", "glob fileinput linecache"),
    **_all("native", "ctypes cffi _ctypes mmap resource fcntl termios tty pyximport cython llvmlite"),
    **_all("environment", "platform getpass pwd grp locale"),
    **_all("pickle", "pickle _pickle cPickle marshal shelve dill cloudpickle joblib jsonpickle copyreg"),
    **_all("time", "time"),
    **_all("randomness", "secrets uuid"),
}
"""A module, or what begins with it, and its rule."""

CALLS: Final[dict[str, str]] = {
    **_all(
        "reflection", "eval exec compile __import__ globals locals vars operator.attrgetter operator.methodcaller breakpoint"
    ),
    **_all("reflection", "sys._getframe sys._current_frames sys.settrace sys.setprofile numpy.frompyfunc"),
    **_all("process", "os.system os.popen os.fork os.forkpty os.kill os.killpg os.abort os.posix_spawn os.posix_spawnp"),
    **_all("process", "os.execv os.execve os.execl os.execvp os.execlp os.spawnl os.spawnv os.spawnlp os.startfile"),
    **_all("exit", "sys.exit os._exit exit quit"),
    **_all(
        "files.write", "os.remove os.unlink os.rename os.replace os.mkdir os.makedirs os.rmdir os.link os.symlink os.chmod"
    ),
    **_all("files.write", "os.open os.write os.mkfifo os.truncate os.utime os.chown numpy.save numpy.savez numpy.savetxt"),
    **_all("files.write", "numpy.savez_compressed numpy.memmap pandas.ExcelWriter pandas.HDFStore"),
    **_all(
        "files.read", "os.listdir os.walk os.scandir os.stat os.read os.readlink os.access pathlib.Path pathlib.PurePath"
    ),
    **_all("files.read", "numpy.load numpy.loadtxt numpy.genfromtxt numpy.fromfile numpy.fromregex io.open io.FileIO"),
    **_all("environment", "os.getenv os.putenv os.environ os.uname os.getpid os.getppid os.getlogin os.cpu_count os.getcwd"),
    **_all("environment", "os.path.expanduser sys.getsizeof sys.getrefcount os.chdir"),
    **_all("pickle", "torch.load torch.save pandas.read_pickle torch.jit.load sklearn.externals.joblib"),
    **_all("time", "datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today"),
    **_all("time", "pandas.Timestamp.now pandas.Timestamp.today pandas.Timestamp.utcnow os.times"),
    **_all("randomness", "os.urandom os.getrandom random.SystemRandom"),
    **_all("messages", "print logging.debug logging.info logging.warning logging.error logging.critical sys.stdout.write"),
    **_all("messages", "sys.stderr.write warnings.warn logging.exception"),
}
"""A function by its whole name, once the imports are followed, and its rule."""

DUNDERS: Final[frozenset[str]] = _set(
    "__class__ __subclasses__ __globals__ __builtins__ __mro__ __bases__ __base__ __code__ __dict__ __getattribute__"
    " __reduce__ __reduce_ex__ __loader__ __spec__ __import__ __closure__ __func__ __self__ __wrapped__ __init_subclass__"
    " __set_name__ __del__ __setstate__ __getattr__ __array_interface__ f_globals f_locals f_builtins f_back f_code tb_frame"
    " gi_frame cr_frame ag_frame co_code func_globals mro"
)
"""Attributes that lead from a value to the interpreter."""

WRITERS: Final[frozenset[str]] = _set(
    "write_text write_bytes to_parquet to_feather to_excel to_hdf to_sql to_stata to_orc to_clipboard savefig write_csv"
    " write_parquet write_json write_ipc write_ndjson write_excel write_database sink_csv sink_parquet sink_ipc tofile"
    " touch symlink_to hardlink_to unlink rmdir"
)
"""Methods that write a file."""

READERS: Final[frozenset[str]] = _set(
    "read_csv read_parquet read_json read_excel read_feather read_table read_sql read_hdf"
    " read_html read_xml read_orc read_fwf"
    " read_text read_bytes scan_csv scan_parquet scan_ipc read_ipc read_database open_dataset"
)
"""Functions and methods that read a file."""

ROWS: Final[frozenset[str]] = _set(
    "head tail iloc loc iat at sample iterrows itertuples to_dict to_dicts tolist to_list"
    " to_records to_numpy values rows row"
    " item items to_json to_csv to_string to_markdown to_html to_pylist to_pydict to_pandas"
    " to_arrow nlargest nsmallest idxmax"
    " idxmin argmax argmin first last nth top_k bottom_k mode get_group to_pickle explode"
)
"""Attributes that give single rows or values."""

EXTREMES: Final[frozenset[str]] = _set("min max cummin cummax nanmin nanmax amin amax")
GROUPS: Final[frozenset[str]] = _set(
    "unique value_counts groupby group_by pivot_table crosstab get_dummies factorize drop_duplicates n_unique"
)
SHAPED: Final[frozenset[str]] = _set(
    "numpy.zeros numpy.ones numpy.empty numpy.full numpy.arange numpy.linspace numpy.eye"
    " numpy.repeat numpy.tile bytes bytearray"
    " range numpy.random.rand numpy.random.randn"
)
"""Functions whose argument is a size."""

KNOWN: Final[frozenset[str]] = _set(
    "numpy pandas pyarrow polars sklearn scipy matplotlib safetensors onnxruntime packaging dateutil"
)
"""What the enclave has for code that brings no lock (``strongroom[room]`` and ``strongroom[data]``)."""

IMPORTED_AS: Final[dict[str, str]] = {
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Modules of packages with other names."""

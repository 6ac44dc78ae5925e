# Each target makes .venv when it is missing or when the pinned versions change.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PEERS  := $(VENV)/.installed-peers
CODE   := glow_bt strategies datafeeds tests

.PHONY: demo test check fix format-check lint types imports cov results results-risk bench bench-speed bench-density bench-risk bench-backtest soak wheel clean

demo: $(STAMP)
	$(BIN)/glow-bt demo --out results/demo --overwrite

test: $(STAMP)
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

# The checks of the source run beside the tests: one of them is always single.
check: $(STAMP)
	$(MAKE) --jobs=2 format-check lint types imports cov

fix: $(STAMP)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

format-check: $(STAMP)
	$(BIN)/ruff format --check $(CODE)

lint: $(STAMP)
	$(BIN)/ruff check $(CODE)

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

cov: $(STAMP)
	$(BIN)/pytest -n auto --dist worksteal --cov --cov-report=term $(ARGS)

# Reference results. BTC_BARS: hourly BTC bars in the form that README describes. TRIALS: settings of the policy that were
# looked at before, on the first 40 % of each history (benchmarks/select_policy.md).
results: TRIALS := 100
results: $(STAMP)
	$(BIN)/glow-bt demo --sample sp500 --trials $(TRIALS) --out results/sp500 --overwrite
	$(BIN)/glow-bt demo --sample nasdaq --trials $(TRIALS) --out results/nasdaq --overwrite
	if [ -n "$(BTC_BARS)" ]; then \
	  $(BIN)/glow-bt walk-forward "$(BTC_BARS)" --trials $(TRIALS) --title "BTC/USD, hourly" --out results/btc-1h --overwrite && \
	  $(BIN)/glow-bt train "$(BTC_BARS)" --out build/btc-1h --overwrite && \
	  $(BIN)/glow-bt backtest "$(BTC_BARS)" --model build/btc-1h --trials $(TRIALS) --title "BTC/USD, hourly, one split" \
	    --out results/btc-1h-split --overwrite; \
	fi
	$(BIN)/python -m glow_bt.evaluation.results_index

# Risk models side by side, walk-forward; BTC_BARS as above.
results-risk: $(STAMP)
	for name in sp500 nasdaq; do \
	  $(BIN)/python -m datafeeds.samples $$name build/$$name.parquet; \
	done
	$(BIN)/glow-bt risk build/sp500.parquet --title "S&P 500, daily" --out results/risk-sp500 --overwrite
	$(BIN)/glow-bt risk build/nasdaq.parquet --title "NASDAQ Composite, daily" --out results/risk-nasdaq --overwrite
	if [ -n "$(BTC_BARS)" ]; then \
	  $(BIN)/glow-bt risk "$(BTC_BARS)" --title "BTC/USD, hourly" --out results/risk-btc-1h --overwrite; \
	fi
	$(BIN)/python -m glow_bt.evaluation.results_index

# Benchmarks, ARGS as in `make bench-speed ARGS="--only train-256"`; see benchmarks/README.md.
bench: bench-speed bench-density bench-risk bench-backtest

bench-speed: $(PEERS)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed $(ARGS)

bench-density: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.density tails
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.density market $(if $(BTC_BARS),--btc "$(BTC_BARS)")

bench-risk: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.risk.select_settings $(BTC_BARS) > benchmarks/risk/select_settings.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.risk.portfolio $(if $(PERPETUALS),--perpetuals "$(PERPETUALS)")
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.risk.fidelity $(if $(BTC_BARS),--btc "$(BTC_BARS)")

# How the feed stands faults, kills, drops and load; about half an hour.
soak: $(STAMP)
	$(BIN)/python -m tests.datafeeds.fault_study
	$(BIN)/python -m tests.datafeeds.kill_study
	$(BIN)/python -m tests.datafeeds.live_study
	for latency in 0 0.1 0.25; do $(BIN)/python -m tests.datafeeds.load_study rate --latency $$latency; done
	$(BIN)/python -m tests.datafeeds.load_study memory

bench-backtest: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.backtest $(ARGS)

wheel: $(STAMP)
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist .coverage* .mypy_cache .pytest_cache .ruff_cache

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "glow_bt needs Python 3.11 or newer; call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(PEERS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

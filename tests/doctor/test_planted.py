"""Errors planted in the mathematics, each of which has to turn its line of the doctor's table red.

An error is a replacement in the source of one function; the rest of the program runs as it is. What a test
runs, and what of it has to fail, are stated; the rest of it has to pass.
"""

import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import NamedTuple

import old_bound
import pytest

from ddpm.diffusion import (
    Denoiser,
    NoiseSchedule,
    Parametrization,
    decoder,
    likelihood,
    q_posterior_mean,
    schedules,
    weighting,
)
from ddpm.diffusion.condition import Condition, apply_network
from ddpm.diffusion.guidance import Autoguidance, Beyond
from ddpm.diffusion.objectives import EDM, Flow, PosteriorMean, V
from ddpm.diffusion.samplers import (
    DDIM,
    DEIS,
    Ancestral,
    DDIMInversion,
    DPMSolver,
    FlowHeun,
    Heun,
    Sampler,
    Spacing,
)
from ddpm.diffusion.samplers.spacing import strided
from ddpm.diffusion.timesteps import LogNormal, LossSecondMoment, Stated, Uniform
from ddpm.diffusion.variances import FixedLarge, LearnedRange
from ddpm.diffusion.weighting import Hybrid, MinSNR, Uncertainty
from ddpm.doctor import environment
from ddpm.doctor.case import judged
from ddpm.doctor.examination import ROOMS, Examined, examined

pytest_plugins = ("all_options",)


class Error(NamedTuple):
    """`function` with each old text replaced by the new one; the checks that are run in a room; and the
    lines, or all lines of the checks, that have to fail.
    """

    function: Callable
    changes: list[tuple[str, str]]
    room: str
    checks: set[str]
    red: set[str]


ERRORS = {
    "coefficients of the posterior mean swapped": Error(
        q_posterior_mean,
        [
            ('"posterior_mean_x_0", t, x_t) * x_0', '"posterior_mean_x_t", t, x_t) * x_0'),
            ('"posterior_mean_x_t", t, x_t) * x_t', '"posterior_mean_x_0", t, x_t) * x_t'),
        ],
        "forward process",
        {"noising", "posterior", "respacing"},
        {"posterior", "respacing"},
    ),
    "tables looked up one step too early": Error(
        NoiseSchedule.lookup,
        [("values[t]", "values[(t - 1).clamp(min=0)]")],
        "forward process",
        {"noising", "posterior"},
        {"noising", "posterior"},
    ),
    "SNR upside down": Error(
        NoiseSchedule.__init__,
        [("self.snr = self.alphas_cumprod / (1 - self.alphas_cumprod)",
          "self.snr = (1 - self.alphas_cumprod) / self.alphas_cumprod")],
        "forward process",
        {"noising", "posterior"},
        {"noising"},
    ),
    "betas of the original chain after respacing": Error(
        NoiseSchedule.respaced,
        [("betas_between(kept)", "self.betas[steps]")],
        "forward process",
        {"noising", "respacing"},
        {"respacing"},
    ),
    "posterior mean read off the shortened chain": Error(
        PosteriorMean.x_0,
        [('schedule.original.lookup("posterior_mean_x_0", step', 'schedule.lookup("posterior_mean_x_0", t')],
        "denoiser",
        {"target", "x_0"},
        {"x_0: objective=mean"},
    ),
    "sign of v": Error(
        V.target, [("signal * eps - noise * x_0", "noise * x_0 - signal * eps")], "denoiser", {"target"},
        {"target: objective=v"},
    ),
    "sign of flow's velocity": Error(
        Flow.target, [("eps - x_0", "x_0 - eps")], "denoiser", {"target"}, {"target: objective=flow"}
    ),
    "a flow network sees the chain's frame": Error(
        Flow.network_inputs, [("return x_t / size", "return x_t")], "denoiser", {"inputs", "target"},
        {"inputs: objective=flow"},
    ),
    "an EDM network is given sigma itself": Error(
        EDM.network_inputs, [("log_sigma / 4", "log_sigma.exp() / 4")], "denoiser", {"inputs", "target"},
        {"inputs: objective=edm"},
    ),
    "EDM's input has the unit variance of the chain's frame": Error(
        EDM._deviation, [("(self.sigma_data * signal)", "signal")], "denoiser", {"inputs", "target"},
        {"inputs: objective=edm", "target: objective=edm"},
    ),
    "EDM's image without its skip": Error(
        EDM.x_0, [("self.sigma_data * signal * x_t / deviation", "0 * x_t")], "denoiser", {"x_0"},
        {"x_0: objective=edm"},
    ),
    "what the network is given is no step": Error(
        Parametrization.network_inputs,
        [("return self.objective.network_inputs(schedule, x_t, t)", "return x_t, schedule.timestep(t)")],
        "denoiser",
        {"clipping"},
        {"clipping: objective=flow", "clipping: objective=edm"},
    ),
    "eps of the x_0 before clipping": Error(
        Denoiser.__call__,
        [("    x_0 = self.parametrization", "    before = x_0 = self.parametrization"),
         ("eps=predict_eps(schedule, x_t, t, x_0)", "eps=predict_eps(schedule, x_t, t, before)")],
        "denoiser",
        {"clipping", "x_0"},
        {"clipping"},
    ),
    "fixed_large keeps the original chain's betas": Error(
        FixedLarge.log_variance,
        [
            (
                'schedule.lookup("log_betas", t, x_t)',
                'schedule.original.lookup("log_betas", schedule.timestep(t), x_t)',
            )
        ],
        "denoiser",
        {"variance"},
        {"variance: variance=fixed_large"},
    ),
    "learned range the wrong way round": Error(
        LearnedRange.log_variance, [("(output + 1) / 2", "(1 - output) / 2")], "denoiser", {"variance"},
        {"variance: variance=learned_range"},
    ),
    "guidance's w taken for its scale": Error(
        Beyond._guided, [("guided = away +", "guided = towards +")], "denoiser", {"guidance"},
        {"guidance: guidance=classifier_free", "guidance: guidance=autoguidance"},
    ),
    "guidance ends one step early": Error(
        Beyond._guided, [("t <= highest", "t < highest")], "denoiser", {"guidance"},
        {"guidance: guidance=classifier_free", "guidance: guidance=autoguidance"},
    ),
    "the guide takes the network's place": Error(
        Autoguidance.__call__, [("own, guide = output_for(labels), self.guide",
                                 "guide, own = output_for, self.guide(x_t, t)")], "denoiser", {"guidance"},
        {"guidance: guidance=autoguidance"},
    ),
    "the scale grows with the noise": Error(
        Beyond.scale_at, [("](t.double()", "](num_timesteps - 1 - t.double()")], "denoiser", {"guidance"},
        {"guidance: guidance=classifier_free", "guidance: guidance=autoguidance"},
    ),
    "the class is not told": Error(
        apply_network, [("*(() if labels is None else (labels,))", "*()")], "denoiser", {"guidance"},
        {"guidance"},
    ),
    "the shift the other way": Error(
        schedules._chain, [("shift**2 * (1", "shift**-2 * (1")], "forward process", {"shift", "noising"},
        {"shift"},
    ),
    "uncertainty without its logarithm": Error(
        Uncertainty.losses, [("* (-u).exp() + u", "* (-u).exp()")], "training", {"loss"},
        {"loss: weighting=uncertainty"},
    ),
    "log-normal draws the clean end": Error(
        LogNormal.probabilities, [(".diff()", ".diff().flip(0)")], "training", {"timesteps"},
        {"timesteps: timesteps=log_normal"},
    ),
    "what is drawn as a weighting is weighed back": Error(
        Stated.weight, [("if self.reweights", "if False")], "training", {"timesteps"},
        {"timesteps: timesteps=log_normal", "timesteps: timesteps=logit_normal"},
    ),
    "flow's error converted wrongly": Error(
        Flow.x_0_error, [("(1 + schedule", "(0 + schedule")], "training", {"loss"},
        {f"loss: weighting={name}" for name in ("min_snr", "p2", "snr")},
    ),
    "v's error converted wrongly": Error(
        V.x_0_error, [("(1 + schedule", "(0 + schedule")], "training", {"loss"},
        {f"loss: weighting={name}" for name in ("min_snr", "p2", "snr")},
    ),
    "min-SNR takes the larger": Error(
        MinSNR.weight, [("max=self.gamma", "min=self.gamma")], "training", {"loss"},
        {"loss: weighting=min_snr"},
    ),
    "the bound's gradient reaches the mean in the hybrid loss": Error(
        Hybrid.losses, [(".detach()", "")], "training", {"loss"}, {"loss: weighting=hybrid"}
    ),
    "no importance weight": Error(
        LossSecondMoment.weight,
        [("(1 / (schedule.num_timesteps * p[t]))", "torch.ones(t.shape)")],
        "training",
        {"timesteps", "mean loss"},
        {"timesteps: timesteps=importance", "mean loss: timesteps=importance"},
    ),
    "the last step is never drawn": Error(
        Uniform.draw, [("(u, schedule.num_timesteps)", "(u, schedule.num_timesteps - 1)")], "training",
        {"timesteps"}, {"timesteps: timesteps=uniform", "timesteps: timesteps=stratified"},
    ),
    "clipped at the end only": Error(
        Sampler.__call__,
        [
            (
                "    chain = self",
                "    clip = getattr(denoiser, 'clip', False)\n"
                "    denoiser = __import__('copy').copy(denoiser)\n"
                "    denoiser.clip = False\n"
                "    chain = self",
            ),
            ("chain, x_t, noise_at)", "chain, x_t, noise_at).clamp(*((-1, 1) if clip else (-1e9, 1e9)))"),
        ],
        "sampling",
        {"clipped process", "moments"},
        {"clipped process"},
    ),
    "variance taken for the deviation": Error(
        Ancestral.reverse, [("(log_variance / 2)", "log_variance")], "sampling",
        {"known x_0", "fresh noise"},
        {"known x_0: sampler=ancestral", "fresh noise: sampler=ancestral"},
    ),
    "noise in the last step": Error(
        Ancestral.reverse, [("if i > 0:", "if i >= 0:")], "sampling", {"known x_0", "fresh noise"},
        {"fresh noise: sampler=ancestral"},
    ),
    "DDIM's sigma with eta for its square": Error(
        DDIM.reverse, [("self.eta**2", "self.eta")], "sampling", {"known x_0", "fresh noise", "moments"},
        {"fresh noise: sampler=ddim"},
    ),
    "no second order in DPM-Solver": Error(
        DPMSolver.reverse,
        [("(1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * x_0_before", "x_0")],
        "sampling",
        {"known x_0", "order"},
        {"order: sampler=dpm_solver", "order: sampler=dpm_solver_sde"},
    ),
    "Heun's second slope at the upper step": Error(
        Heun.reverse, [("slope, below)", "slope, above)")], "sampling", {"known x_0", "order"},
        {f"{check}: sampler={name}" for check in ("known x_0", "order") for name in ("heun", "heun_churn")},
    ),
    "churn's variance taken for its deviation": Error(
        Heun.reverse, [("math.sqrt(variance)", "variance")], "sampling", {"known x_0"},
        {"known x_0: sampler=heun_churn"},
    ),
    "no higher order in DEIS": Error(
        DEIS.reverse, [("known[: self.order - 1]", "known[:0]")], "sampling", {"known x_0", "order"},
        {"order: sampler=deis"},
    ),
    "steps even in sigma for its root": Error(
        Spacing.steps, [(" / self.rho).exp()", ").exp()")], "spacing", {"spacing"},
        {"spacing: sampler.spacing=karras"},
    ),
    "the largest stride in place of the smallest": Error(
        strided, [("range(max(num_timesteps - 1, 1), 0, -1)", "range(1, num_timesteps)")], "spacing",
        {"spacing"}, {"spacing: sampler.spacing=ddim5"},
    ),
    "flow's second velocity at the upper step": Error(
        FlowHeun.reverse, [("velocity), i - 1)", "velocity), i)")], "sampling", {"known x_0", "order"},
        {"known x_0: sampler=flow_heun", "order: sampler=flow_heun"},
    ),
    "the inversion asks about where it comes from": Error(
        DDIMInversion.__call__, [("predict(ratio * x_t + stride * eps, i)", "predict(x_t, i)")], "sampling",
        {"inversion"}, {"inversion: sampler=ddim"},
    ),
    "the condition shown before x_t": Error(
        apply_network, [("[x, image.to(x.dtype)]", "[image.to(x.dtype), x]")],
        "condition", {"condition", "guided condition"}, {"condition", "guided condition"},
    ),
    "a vector that gets lost": Error(
        apply_network, [('{"vector": vector}', '{"vector": 0 * vector}')],
        "condition", {"condition"}, {"condition"},
    ),
    "the condition never withheld": Error(
        Condition.withheld, [("where: Tensor | None = None", "where=None"),
        ("_zeros(part, where)", "part")],
        "condition", {"guided condition"}, {"guided condition"},
    ),
    "a level too wide in the decoder": Error(
        decoder._LogLikelihood.forward, [("half = HALF_LEVEL", "half = 2 * HALF_LEVEL")],
        "bound", {"bound"}, {"bound"},
    ),
    "no prior term": Error(
        likelihood.prior_term, [("return _bits", "return 0 * _bits")], "bound", {"bound"}, {"bound"}
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def found(everything: Examined) -> Examined:
    """All options but most schedules, and a cover of their own: as much as it takes to see an error."""
    few = [
        option for option in everything.catalogue["schedule"] if option.name in ("cosine", "jsd", "linear")
    ]
    return examined({**everything.catalogue, "schedule": few})


@pytest.mark.e2e
@pytest.mark.parametrize("name", ERRORS)
def test_a_planted_error_turns_its_line_red(name: str, found: Examined, monkeypatch: pytest.MonkeyPatch):
    function, changes, room, checks, red = ERRORS[name]
    plant(function, changes, monkeypatch)
    lines = judged(case for case in ROOMS[room](found) if case.check in checks)
    failed = {line.check for line in lines if not line.passed}
    expected = {line.check for line in lines if red & {line.check, line.check.split(":")[0]}}
    assert expected, "no such line"
    assert failed == expected
    assert all(line.why for line in lines if not line.passed), "names the combination"


def test_the_bound_as_it_was_turns_its_lines_red(found: Examined, monkeypatch: pytest.MonkeyPatch):
    """It is right in double precision, which once was all that was examined, and NaN in single."""
    for module in (likelihood, weighting):
        monkeypatch.setattr(module, "bound_term", old_bound.bound_term)
    cases = [*ROOMS["precision"](found), *ROOMS["training"](found)]
    lines = judged(case for case in cases if case.check in ("precision", "loss", "minimum"))
    failed = {line.check for line in lines if not line.passed}
    assert failed == {"precision: weighting=bound", "precision: weighting=hybrid"}
    (cpu,) = (line for line in environment.device_lines({"cpu": ""}) if line.check == "losses on: cpu")
    assert not cpu.passed


def plant(function: Callable, changes: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Change a function where it is, so that whoever has imported it has the error too."""
    original = inspect.unwrap(function)
    assert isinstance(original, FunctionType)
    source = textwrap.dedent(inspect.getsource(original))
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} is to be found once in {original.__qualname__}"
        source = source.replace(old, new)
    namespace = dict(original.__globals__)
    exec(compile(source, original.__code__.co_filename, "exec"), namespace)
    monkeypatch.setattr(original, "__code__", inspect.unwrap(namespace[original.__name__]).__code__)

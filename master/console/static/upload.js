/* Sends a form with files so that one sees how far it is; without script the form goes by itself. */
const size = (bytes) => {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000 || unit === "GB") return `${unit === "B" ? bytes : bytes.toFixed(1)} ${unit}`;
    bytes /= 1000;
  }
};

const said = (html) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  const alert = page.querySelector('[role="alert"]') ?? page.body;
  alert.querySelectorAll("code").forEach((code) => code.remove()); // the API's word, for programs
  return alert.textContent.trim();
};

const enhance = (form) => {
  const files = form.querySelector('input[type="file"]');
  const button = form.querySelector('button[type="submit"]');
  const sending = form.querySelector(".sending");
  const progress = sending.querySelector("progress");
  const words = sending.querySelector(".sent-bytes");
  const failure = form.querySelector(".upload-failure");
  const most = Number(form.dataset.mostBytes);
  let request = null;

  const fail = (text) => {
    failure.textContent = text;
    failure.hidden = false;
  };
  const busy = (is) => {
    button.disabled = is;
    sending.hidden = !is;
    if (is) failure.hidden = true;
  };
  const total = () => [...files.files].reduce((sum, file) => sum + file.size, 0);

  for (const name of ["dragenter", "dragover"]) {
    files.addEventListener(name, () => files.classList.add("over"));
  }
  for (const name of ["dragleave", "drop"]) {
    files.addEventListener(name, () => files.classList.remove("over"));
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (total() > most) {
      fail(`These files have ${size(total())} together; up to ${size(most)} are taken at once.`);
      return;
    }
    request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("X-CSRF-Token", window.millrace.token());
    request.setRequestHeader("HX-Request", "true");
    request.upload.addEventListener("progress", (sent) => {
      progress.value = sent.total ? (100 * sent.loaded) / sent.total : 0;
      words.textContent = sent.loaded < sent.total
        ? `${size(sent.loaded)} of ${size(sent.total)}`
        : "All is sent; it is being looked into.";
    });
    request.addEventListener("load", () => {
      const next = request.getResponseHeader("HX-Redirect");
      if (next) {
        location.assign(next);
        return;
      }
      busy(false);
      fail(said(request.responseText) || `The server answered ${request.status}.`);
    });
    request.addEventListener("error", () => {
      busy(false);
      fail("The connection was lost before everything was sent. Nothing was stored; send it again.");
    });
    request.addEventListener("abort", () => busy(false));
    busy(true);
    const body = new FormData(form);
    body.delete("csrf");
    request.send(body);
  });
  sending.querySelector(".stop-sending").addEventListener("click", () => request?.abort());
};

document.querySelectorAll("form[data-upload]").forEach(enhance);

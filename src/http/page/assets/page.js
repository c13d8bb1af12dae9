// What every page of the exporter does in a browser: it keeps itself up to date and tells times in the reader's zone.
// All that it shows was written by the server, so every page also works without it.
import { copyButtons } from "./copying.js";
import { keepUpToDate } from "./refresh.js";
import { searchWhileTyping } from "./searching.js";
import { tellTimeline } from "./timeline.js";
import { tellTimes } from "./times.js";

/** Does what the server cannot do to what it wrote. */
const shown = () => {
    tellTimes();
    tellTimeline();
    copyButtons();
};

shown();
searchWhileTyping(shown);
// A page that is true of one moment stays as it is.
if (!("once" in document.body.dataset)) keepUpToDate(shown);
